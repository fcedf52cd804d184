"""The quickstart: data, a teacher, two students, and a table of what they learned."""
