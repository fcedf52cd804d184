from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hgkd_mm.doctor import probes as module
from hgkd_mm.sparse import TileMap
from hgkd_mm.utils import env_check


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    # building three models takes seconds, and env_check has tests of its own
    monkeypatch.setattr(env_check, 'check_running', lambda *, ops: [])
    monkeypatch.setattr(module, 'has_ops', lambda: True)


def test_all_is_right_here() -> None:
    begun = []
    section = module.probes(begun.append)
    assert section.problems == []
    facts = dict(section.facts)
    assert [what for what in begun if what in facts] == begun[1:]
    assert facts['mmcv.ops.nms, cpu'] == 'right'
    for what in ('attention, float32, cpu', 'attention, bfloat16, cpu', 'sparse step, tiles, cpu'):
        assert facts[what].startswith('right to ')


def test_broken_mmcv_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str = 'cpu') -> None:
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(module, 'has_ops', lambda: True)
    monkeypatch.setattr(env_check, 'run_nms', broken)
    section = module.probes(lambda what: None)
    (problem,) = section.problems
    assert problem.startswith('mmcv.ops.nms on the CPU failed (RuntimeError: CUDA error: no kernel')
    assert 'bash tools/setup_env.sh --rebuild-mmcv' in problem
    assert 'sparse step, tiles, cpu' in dict(section.facts)


def test_mmcv_without_ops_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'has_ops', lambda: False)
    monkeypatch.setattr(env_check, 'run_nms', lambda device: pytest.fail('an op was run'))
    section = module.probes(lambda what: None)
    assert section.problems == []
    assert ('models', 'ResNet-18 and UperNet can be built') in section.facts
    (note,) = [note for note in section.notes if 'ops' in note]
    assert note.startswith('mmcv is pure Python')
    assert '`bash tools/setup_env.sh --ops`' in note


@pytest.mark.parametrize('works', [True, False])
@pytest.mark.parametrize('models', [[], ['Building mmseg UperNet failed.']])
def test_mmcv_op_on_a_gpu(works: bool, models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def nms(device: str = 'cpu') -> None:
        tried.append(device)
        if device == 'cuda' and not works:
            raise RuntimeError('CUDA error: no kernel image is available')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(env_check, 'run_nms', nms)
    monkeypatch.setattr(env_check, 'check_running', lambda *, ops: models)
    # there is no GPU to run the other two on
    monkeypatch.setattr(module, 'attention_error', lambda **_: 0.0)
    monkeypatch.setattr(module, 'sparse_error', lambda **_: 0.0)
    section = module.probes(lambda what: None)
    assert section.problems == models
    facts = dict(section.facts)
    assert {'cpu', 'cuda'} == set(tried)
    assert facts['mmcv.ops.nms, cpu'] == 'right'
    assert facts.get('mmcv.ops.nms, cuda') == ('right' if works else None)
    notes = [note for note in section.notes if note.startswith('mmcv.ops.nms on the GPU failed')]
    assert len(notes) == (not works)
    assert all('Mask R-CNN on the GPU does' in note for note in notes)


def test_wrong_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    right = F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, k, v: 1.2 * right(q, k, v))
    section = module.probes(lambda what: None)
    assert len(section.problems) == 2
    for dtype, problem in zip(('float32', 'bfloat16'), section.problems, strict=True):
        assert problem.startswith(f'Attention, {dtype}, cpu failed (RuntimeError: a result is off')
        assert 'off by 0.2' in problem


def test_wrong_gradient_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    right = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, 'scaled_dot_product_attention', lambda q, k, v: right(q.detach() + 0 * q, k, v)
    )
    assert module.attention_error(device='cpu') == pytest.approx(1.0)


def test_not_a_number_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        F, 'scaled_dot_product_attention', lambda q, k, v: (q + k + v) * float('nan')
    )
    section = module.probes(lambda what: None)
    assert len(section.problems) == 2
    assert 'off by nan' in section.problems[0]


def test_wrong_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TileMap.conv2d

    def wrong(self: TileMap, weight, bias, window, groups) -> TileMap:
        out = right(self, weight, bias, window, groups)
        return out.with_rows(out.rows.roll(1, dims=0))

    monkeypatch.setattr(TileMap, 'conv2d', wrong)
    section = module.probes(lambda what: None)
    assert any(p.startswith('Sparse step, tiles, cpu failed') for p in section.problems)


@pytest.mark.parametrize(
    ('wheels', 'fact', 'note'),
    [([], True, None), (['spconv'], False, 'this CPU-only wheel gives wrong results')],
)
def test_spconv_is_optional(
    wheels: list[str], fact: bool, note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('hgkd_mm.sparse.spconv.installed_wheels', lambda: wheels)
    section = module.probes(lambda what: None)
    assert section.problems == []
    assert ('spconv' in dict(section.facts)) == fact
    assert 'sparse step, spconv, cpu' not in dict(section.facts)
    assert (note is None) or any(note in n for n in section.notes)
