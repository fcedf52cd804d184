"""What is shown of a model, array by array."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_hgkd import FEAT, PIXEL, SIM, hgkd, mae_file, mae_teacher
from mmpretrain.registry import MODELS
from PIL import Image
from torch import Tensor, nn

from hgkd_mm.inspect import backbone_grid, distillation_grid, draw_quickstart_figure
from hgkd_mm.inspect.figure import DistributionColumn, ImageGrid, PictureColumn
from hgkd_mm.inspect.images import InputFormat
from hgkd_mm.inspect.pca import FeaturePCA, pca_to_rgb
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


def show(model: HGKD) -> ImageGrid:
    return distillation_grid(model, images(), MASK, input_format=FORMAT)


def test_images_and_what_the_student_sees(weights: Path) -> None:
    grid = show(build(dict(feat=FEAT), mim=mae_teacher(weights)))
    image, seen = (column.pictures for column in grid.columns[:2])
    np.testing.assert_array_equal(image, PICTURES)
    pixels = MASK.at((64, 64)).numpy()
    np.testing.assert_array_equal(seen[pixels], PICTURES[pixels])
    assert (seen[~pixels] == GREY).all()
    assert grid.notes[0] == 'The student sees 2 of 4 cells.'


def test_pasted_reconstruction() -> None:
    model = build(dict(pixel=PIXEL))
    grid = show(model)
    column, original = grid.columns[2:]
    np.testing.assert_array_equal(original.pictures, PICTURES)
    pixels = MASK.at((64, 64)).numpy()
    np.testing.assert_array_equal(column.pictures[pixels], PICTURES[pixels])
    assert (column.pictures[~pixels] != PICTURES[~pixels]).mean() > 0.5

    class Oracle(torch.nn.Module):
        out_channels = 3

        def forward(self, maps: object) -> Tensor:
            cells = images().unflatten(3, (2, 32)).unflatten(2, (2, 32))
            variance, mean = torch.var_mean(cells, dim=(1, 3, 5), keepdim=True)
            return ((cells - mean) / variance.sqrt()).flatten(4, 5).flatten(2, 3)

    model.neck = Oracle()
    model.heads['pixel'].project = torch.nn.Identity()
    model.heads['pixel'].out_stride = 1
    np.testing.assert_array_equal(show(model).columns[2].pictures, PICTURES)


@pytest.mark.parametrize(
    ('teacher_view', 'titles'),
    [
        ('full', ['teacher sees\nthe whole image', 'student sees\nthe visible cells']),
        ('visible', ['teacher sees\nthe visible cells', 'student sees\nthe visible cells']),
        ('mim', ['teacher guesses\nfrom visible cells', 'student sees\nthe visible cells']),
    ],
)
def test_feature_columns(weights: Path, teacher_view: str, titles: list[str]) -> None:
    model = build(dict(feat=FEAT), mim=mae_teacher(weights, teacher_view=teacher_view))
    columns = show(model).columns[2:]
    both = ['teacher sees\nthe whole image', 'student sees\nthe whole image']
    assert [c.title for c in columns] == titles + (both[1:] if teacher_view == 'full' else both)
    assert all(c.pictures.shape == (3, 4, 4, 3) for c in columns)
    assert [bool(c.captions) for c in columns] == [c.title.startswith('student') for c in columns]
    hidden_is_grey = (columns[1].pictures[~VISIBLE] == GREY).all()
    assert hidden_is_grey == (teacher_view == 'visible')
    assert not (columns[-1].pictures == GREY).all(-1).any()


def test_features_are_those_of_the_loss_in_the_teachers_components(weights: Path) -> None:
    model = build(dict(feat=FEAT), mim=mae_teacher(weights))
    teacher, masked, whole = (column.pictures for column in show(model).columns[2:])
    model.eval()
    everything = CellMask.full(batch=3, grid=(2, 2))
    with torch.no_grad():
        tokens = model.teachers['mim'](images()).tokens
        target = torch.nn.functional.layer_norm(tokens.permute(0, 2, 3, 1), (24,), eps=1e-6)
        target = target.permute(0, 3, 1, 2)
        components = FeaturePCA(torch.cat([target, target]))  # masked and whole
        np.testing.assert_array_equal(teacher, components.to_rgb(target))
        for mask, shown in ((MASK, masked), (everything, whole)):
            student, targets = model.compare(images(), mask)
            guess = model.heads['feat'].project(student.decoded)
            np.testing.assert_array_equal(shown, components.to_rgb(guess))
            error = (guess - target).square().mean()
            torch.testing.assert_close(model.heads['feat'](student, targets['mim']), error)


def test_agreement_counts_what_the_teacher_saw(weights: Path) -> None:
    model = build(dict(feat=FEAT), mim=mae_teacher(weights, teacher_view='visible'))
    captions = show(model).columns[3].captions
    model.eval()
    with torch.no_grad():
        student, targets = model.compare(images(), MASK)
        guess = model.heads['feat'].project(student.decoded).numpy()
        target = model.heads['feat'].target(targets['mim']).numpy()
    for image, caption in enumerate(captions):
        a, b = (x[image].transpose(1, 2, 0)[VISIBLE[image]] for x in (guess, target))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert len(cosine) == 8
        assert float(caption.removeprefix('cos ')) == pytest.approx(cosine.mean(), abs=0.0051)


def test_distributions_are_those_of_the_loss(weights: Path) -> None:
    model = build(dict(sim=SIM), mim=mae_teacher(weights))
    [column] = show(model).columns[2:]
    assert isinstance(column, DistributionColumn)
    assert column.teacher.shape == column.student.shape == (3, 30)
    for p in (column.teacher, column.student):
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    expected = [
        np.corrcoef(t, s)[0, 1] for t, s in zip(column.teacher, column.student, strict=True)
    ]
    np.testing.assert_allclose(column.correlation, expected, atol=1e-4)
    with torch.no_grad():
        loss = model.eval().loss(images(), mask=MASK)['loss_sim']
    assert 1 - column.correlation.mean() == pytest.approx(loss.item(), abs=1e-6)


@pytest.mark.parametrize('own_entry', [False, True])
def test_an_empty_queue_is_said(weights: Path, own_entry: bool) -> None:
    sim = SIM | dict(own_entry=own_entry)
    grid = show(build(dict(sim=sim), stored=0, mim=mae_teacher(weights)))
    assert len(grid.columns) == 2
    assert "Head 'sim'" in grid.notes[1]


def test_several_teachers_and_heads(weights: Path) -> None:
    model = build(
        dict(feat=FEAT, sim=SIM, other=FEAT | dict(teacher='b')),
        mim=mae_teacher(weights),
        b=mae_teacher(weights, teacher_view='mim'),
    )
    model.train()
    grid = show(model)
    assert [column.group for column in grid.columns] == (
        ['input'] * 2
        + ["head 'feat': features of teacher 'mim'"] * 3
        + ["head 'sim': queue of teacher 'mim'"]
        + ["head 'other': features of teacher 'b'"] * 4
    )
    assert [type(c) for c in grid.columns].count(PictureColumn) == 9
    assert len(grid.notes) == len(set(grid.notes)) == 3
    # Looking changes nothing.
    assert model.training and model.heads['sim'].queue.num_stored == 30


def test_one_column_per_stage_of_a_backbone() -> None:
    torch.manual_seed(0)
    config = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    backbone = MODELS.build(config | dict(out_indices=(1, 3)))
    backbone.train()
    before = backbone.bn1.running_mean.clone()
    columns = backbone_grid(backbone, images(), input_format=FORMAT).columns
    assert [c.pictures.shape for c in columns] == [(3, 64, 64, 3), (3, 8, 8, 3), (3, 2, 2, 3)]
    assert [c.title for c in columns[1:]] == ['8 x 8,\n16 channels', '2 x 2,\n64 channels']
    # In eval mode, and left as it was.
    assert torch.equal(backbone.bn1.running_mean, before) and backbone.training
    backbone.eval()
    with torch.no_grad():
        expected = pca_to_rgb(backbone(images())[0])
    np.testing.assert_array_equal(columns[1].pictures, expected)


def test_a_backbone_of_one_map_and_one_without() -> None:
    columns = backbone_grid(nn.Conv2d(3, 5, 32, 32), images(), input_format=FORMAT).columns
    assert [column.pictures.shape for column in columns] == [(3, 64, 64, 3), (3, 2, 2, 3)]
    with pytest.raises(ValueError, match=r'\(3, 12288\).*out_type=featmap'):
        backbone_grid(nn.Flatten(), images(), input_format=FORMAT)


def test_the_quickstart_figure(tmp_path: Path) -> None:
    def share(picture: np.ndarray, color: tuple[int, int, int]) -> float:
        return float((np.abs(picture - color).max(-1) <= 3).mean())

    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    pictures[..., 0] = 250
    tokens = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    features = tokens.clone()
    features[:, :, :2] *= -1
    data = dict(
        images=pictures, visible=MASK.visible[:2], teacher_tokens=tokens, curves={}, title='t'
    )
    path = draw_quickstart_figure(**data, student_features=features, path=tmp_path / 'p.png')
    picture = np.asarray(Image.open(path).convert('RGB')).astype(int)
    # Red in the whole of the first column and half of the second; grey in the other half.
    red, grey = share(picture, (250, 0, 0)), share(picture, (GREY,) * 3)
    assert red == pytest.approx(3 * grey, rel=0.15) and red > 0.1
    # Equal features have equal colors: tiles are 195 px, 10 px apart, below headings of 95 px.
    left, top, step = 20, 95, 205
    teacher, student = (
        picture[top : top + 195, left + column * step :][:, :195] for column in (2, 3)
    )
    same = np.abs(teacher - student).max(-1) <= 3
    assert same[100:-5, 5:-5].mean() > 0.9 > same[5:95, 5:-5].mean()
    with pytest.raises(ValueError, match='9 features'):
        draw_quickstart_figure(
            **data, student_features=torch.zeros(2, 9, 2, 2), path=tmp_path / 'p.png'
        )
