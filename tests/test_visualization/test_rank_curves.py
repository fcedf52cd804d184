import numpy as np
from matplotlib.figure import Figure

from hgkd_mm.visualization.rank_curves import binned, by_rank, draw_rank_curves
from hgkd_mm.visualization.view import Distributions


def test_entries_are_in_the_teachers_order_and_in_units_of_the_average() -> None:
    teacher, student = by_rank(np.array([0.1, 0.6, 0.3, 0.0]), np.array([0.2, 0.4, 0.3, 0.1]))
    np.testing.assert_allclose(teacher, [2.4, 1.2, 0.4, 0.0])
    np.testing.assert_allclose(student, [1.6, 1.2, 0.8, 0.4])


def test_bins_cover_each_rank_once() -> None:
    values = np.random.default_rng(0).random(1000)
    ranks, means, low, high = binned(values, bins=30)
    assert ranks[0] == 1 and means[0] == low[0] == high[0] == values[0]
    assert (np.diff(ranks) > 0).all() and 10 < len(ranks) < 30
    # The last bin is the upper 1 / 30 of the logarithmic scale.
    last = values[round(1001 ** (29 / 30)) - 1 :]
    np.testing.assert_allclose(means[-1], last.mean())
    np.testing.assert_allclose([low[-1], high[-1]], np.percentile(last, (10, 90)))


def test_fewer_entries_than_bins() -> None:
    ranks, means, _, _ = binned(np.array([3.0, 1.0]), bins=48)
    assert ranks.tolist() == [1, 2] and means.tolist() == [3, 1]


def test_what_is_drawn() -> None:
    teacher = np.array([[0.25, 0.75], [0.5, 0.5]])
    column = Distributions(
        group='g',
        title='t',
        teacher=teacher,
        student=teacher[:, ::-1],
        correlation=np.array([-1, 0]),
    )
    ax = Figure().add_subplot()
    draw_rank_curves(ax, column, 0, last=True)
    by_label = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(by_label['teacher'], [1.5, 0.5])
    np.testing.assert_allclose(by_label['student'], [0.5, 1.5])
    assert [text.get_text() for text in ax.texts] == ['r = -1.00']
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ['teacher', 'student']
