"""What is shown of a model, array by array, and how it is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from matplotlib.figure import Figure
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor, nn

from hgkd_mm.inspect import InputFormat, backbone_columns, distillation_columns, draw_columns
from hgkd_mm.inspect.figure import FeaturePCA, PictureColumn, SimilarityColumn
from hgkd_mm.models import HGKD, SimilarityDistributionHead
from hgkd_mm.sparse import CellMask

FORMAT = InputFormat(mean=(120, 110, 100), std=(50, 60, 70), rgb=True)
MASK = CellMask(torch.tensor([[[1, 0], [0, 1]], [[1, 1], [0, 0]], [[0, 0], [1, 1]]]).bool())
# On the 4 x 4 grid of tokens.
VISIBLE = MASK.visible.numpy().repeat(2, 1).repeat(2, 2)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
GREY = 235


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mae_file(tmp_path_factory.mktemp('teacher'))


def build(heads: dict, *, stored: int = 30, **teachers: dict) -> HGKD:
    """A model with ``stored`` entries in each queue."""
    torch.manual_seed(0)
    model = MODELS.build(hgkd(heads=heads, teachers=teachers))
    for head in model.heads.values():
        if stored and isinstance(head, SimilarityDistributionHead):
            head.queue.enqueue(torch.nn.functional.normalize(torch.randn(stored, 24), dim=1))
    return model


def images() -> Tensor:
    return FORMAT.normalize(PICTURES)


def show(model: HGKD) -> list[PictureColumn | SimilarityColumn]:
    return distillation_columns(model, images(), MASK, input_format=FORMAT)


def test_inputs_and_pasted_reconstruction() -> None:
    model = build(dict(pixel=PIXEL))
    columns = show(model)
    image, seen, filled = (column.pictures for column in columns)
    np.testing.assert_array_equal(image, PICTURES)
    pixels = MASK.at((64, 64)).numpy()
    for shown in (seen, filled):
        np.testing.assert_array_equal(shown[pixels], PICTURES[pixels])
    assert (seen[~pixels] == GREY).all()
    assert columns[1].title.endswith('2 of 4 cells')
    assert (filled[~pixels] != PICTURES[~pixels]).mean() > 0.5

    class Oracle(torch.nn.Module):
        out_channels = 3

        def forward(self, maps: object) -> Tensor:
            cells = images().unflatten(3, (2, 32)).unflatten(2, (2, 32))
            variance, mean = torch.var_mean(cells, dim=(1, 3, 5), keepdim=True)
            return ((cells - mean) / variance.sqrt()).flatten(4, 5).flatten(2, 3)

    model.neck = Oracle()
    model.heads['pixel'].project = torch.nn.Identity()
    model.heads['pixel'].out_stride = 1
    np.testing.assert_array_equal(show(model)[2].pictures, PICTURES)


@pytest.mark.parametrize('teacher_view', ['full', 'visible', 'mim'])
def test_features_are_those_of_the_loss_in_the_teachers_components(
    weights: Path, teacher_view: str
) -> None:
    model = build(dict(feat=FEAT), mim=mae_teacher(weights, teacher_view=teacher_view))
    columns = show(model)[2:]
    model.eval()
    head, found = model.heads['feat'], []
    with torch.no_grad():
        for mask in (MASK, CellMask.full(batch=3, grid=(2, 2))):
            student, targets = model.compare(images(), mask)
            valid = targets['mim'].valid
            target, guess = head.target(targets['mim']), head.project(student.decoded)
            error = (guess - target).square().mean(1)[valid].mean()
            torch.testing.assert_close(head(student, targets['mim']), error)
            found += [(target, valid), (guess, valid)]
    (target, valid), (guess, _), (whole, all_valid), _ = found
    if teacher_view == 'full':
        del found[2]
    if teacher_view == 'visible':
        np.testing.assert_array_equal(valid.numpy(), VISIBLE)
    components = FeaturePCA(torch.cat([target, whole]), valid=torch.cat([valid, all_valid]))
    assert len(columns) == len(found)
    for column, (features, positions) in zip(columns, found, strict=True):
        expected = components.to_rgb(features, valid=positions)
        np.testing.assert_array_equal(column.pictures, expected)
        assert bool(column.captions) == ('student' in column.title)
    # agreement counts what the teacher saw
    for image, caption in enumerate(columns[1].captions):
        a, b = (x[image].permute(1, 2, 0)[valid[image]].numpy() for x in (guess, target))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert float(caption.removeprefix('cos ')) == pytest.approx(cosine.mean(), abs=0.0051)


def test_distributions_are_those_of_the_loss(weights: Path) -> None:
    model = build(dict(sim=SIM), mim=mae_teacher(weights))
    [column] = show(model)[2:]
    assert isinstance(column, SimilarityColumn)
    assert column.teacher.shape == column.student.shape == (3, 30)
    for p in (column.teacher, column.student):
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    expected = [
        np.corrcoef(t, s)[0, 1] for t, s in zip(column.teacher, column.student, strict=True)
    ]
    np.testing.assert_allclose(column.correlation, expected, atol=1e-4)
    with torch.no_grad():
        loss = model.eval().loss(images(), mask=MASK)['loss_sim']
    assert 1 - np.mean(column.correlation) == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize('own_entry', [False, True])
def test_an_empty_queue_has_no_column(
    weights: Path, own_entry: bool, capsys: pytest.CaptureFixture
) -> None:
    sim = SIM | dict(own_entry=own_entry)
    assert len(show(build(dict(sim=sim), stored=0, mim=mae_teacher(weights)))) == 2
    assert "Head 'sim'" in capsys.readouterr().out


def test_several_teachers_and_heads(weights: Path, tmp_path: Path) -> None:
    model = build(
        dict(feat=FEAT, sim=SIM, other=FEAT | dict(teacher='b')),
        mim=mae_teacher(weights),
        b=mae_teacher(weights, teacher_view='mim'),
    )
    model.train()
    columns = show(model)
    of = [column.title.partition(':')[0] for column in columns[2:]]
    assert of == ['feat, mim'] * 3 + ['sim, mim'] + ['other, b'] * 4
    # Looking changes nothing.
    assert model.training and model.heads['sim'].queue.num_stored == 30
    path = draw_columns(columns, tmp_path / 'new' / 'p.png', title='x' * 300)
    assert Image.open(path).size == (2080, 754)


def test_one_column_per_stage_of_a_backbone() -> None:
    torch.manual_seed(0)
    config = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    backbone = MODELS.build(config | dict(out_indices=(1, 3)))
    backbone.train()
    before = backbone.bn1.running_mean.clone()
    columns = backbone_columns(backbone, images(), input_format=FORMAT)
    assert [c.pictures.shape for c in columns] == [(3, 64, 64, 3), (3, 8, 8, 3), (3, 2, 2, 3)]
    # In eval mode, and left as it was.
    assert torch.equal(backbone.bn1.running_mean, before) and backbone.training
    backbone.eval()
    with torch.no_grad():
        features = backbone(images())[0]
    np.testing.assert_array_equal(columns[1].pictures, FeaturePCA(features).to_rgb(features))
    # one map, and none
    columns = backbone_columns(nn.Conv2d(3, 5, 32, 32), images(), input_format=FORMAT)
    assert [column.pictures.shape for column in columns] == [(3, 64, 64, 3), (3, 2, 2, 3)]
    with pytest.raises(ValueError, match=r'\(3, 12288\).*out_type=featmap'):
        backbone_columns(nn.Flatten(), images(), input_format=FORMAT)


def test_entries_are_in_the_teachers_order_and_in_units_of_the_average() -> None:
    teacher, student = np.array([[0.1, 0.6, 0.3, 0.0]]), np.array([[0.2, 0.4, 0.3, 0.1]])
    column = SimilarityColumn(title='', teacher=teacher, student=student, correlation=[1.0])
    ax = Figure().add_subplot()
    column.draw(ax, 0)
    by_label = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(by_label['teacher'], [2.4, 1.2, 0.4, 0.0])
    np.testing.assert_allclose(by_label['student'], [1.6, 1.2, 0.8, 0.4])
