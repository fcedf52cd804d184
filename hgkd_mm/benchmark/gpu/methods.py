"""Each way to compute each product of a convolution, and whether the fastest is chosen."""

from __future__ import annotations

from ..methods import CONVOLUTIONS, METHODS, methods_report
from .context import Context, Findings
from .precision import fast, free_memory

ROUNDS = 2


def methods(context: Context, found: Findings) -> None:
    """The table of ``methods_report`` with the fastest named, and what the choice costs."""
    table, chosen, best = None, 0.0, 0.0
    with fast():
        for layer in CONVOLUTIONS[: context.sizes.convolutions]:
            if found.out_of_time(context, f'layer {layer} and later ones'):
                break
            report = methods_report(context.settings(rounds=ROUNDS), [layer])
            if table is None:
                table = found.table(
                    f'{report.title}, {context.sizes.type_name}', (*report.columns, 'fastest')
                )
            for row, record in zip(report.rows, report.records, strict=True):
                times = {method: record[method] for method in METHODS if method in record}
                fastest = min(times, key=times.__getitem__)
                table.rows.append((*row, '' if fastest == record['chosen'] else fastest))
                table.records.append({**record, 'fastest': fastest})
                chosen += times[record['chosen']]
                best += times[fastest]
            free_memory()
    found.notes.append(
        f'The chosen methods take {chosen:.3g} ms in all, the fastest {best:.3g} ms.'
    )
