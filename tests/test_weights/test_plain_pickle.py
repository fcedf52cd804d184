from __future__ import annotations

import argparse
import io
import tarfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pickles import MakesFolder
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import nn

from hgkd_mm.weights.plain_pickle import CodeInFileError, _PlainPickle, load_plain

FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])


@FORMATS
def test_tensors_and_plain_values_come_back_as_they_were(tmp_path: Path, zipped: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    content = {
        'state_dict': network.state_dict(),
        'parameter': nn.Parameter(torch.ones(2), requires_grad=False),
        'half': [torch.zeros(2, dtype=torch.bfloat16), (torch.zeros(()), torch.arange(3))],
        'strided': torch.arange(6.0).view(2, 3).t(),
        'types': (torch.float16, torch.device('cpu'), torch.Size([1, 2]), slice(1, 2)),
        'plain': {'a': None, 'b': [1, 2.5, True, 'x'], 'c': {1}, 'd': frozenset({2}), 'e': 1j},
        'bytes': (b'', b'abc\xff'),
        'counted': Counter('aab'),
        'ordered': OrderedDict(z=1, a=2),
        'numpy': [np.float64(0.5), np.int64(-3), np.bool_(True), np.str_('text'), np.str_('')],
        'config': ConfigDict(a=ConfigDict(b=1)),
        'path': Path('a') / 'b',
        'array': np.arange(6, dtype='>i4').reshape(2, 3).T,
    }
    hub = MessageHub.get_instance('test_plain_pickle')
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar('train/loss', value)
    path = tmp_path / 'w.pth'
    torch.save({**content, 'hub': hub.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    read = load_plain(path)
    buffer = read.pop('hub')['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.current(), buffer.min(), buffer.mean(2)) == (2.0, 1.0, 1.5)
    assert read.keys() == content.keys()
    assert read['state_dict'].keys() == content['state_dict'].keys()
    assert read['state_dict']._metadata == content['state_dict']._metadata
    for name, value in content['state_dict'].items():
        assert torch.equal(read['state_dict'][name], value), name
    assert isinstance(read['parameter'], nn.Parameter) and not read['parameter'].requires_grad
    torch.testing.assert_close(read['half'], content['half'], rtol=0, atol=0)
    assert torch.equal(read['strided'], content['strided'])
    assert read['strided'].stride() == (1, 3)
    for key in content.keys() - {'state_dict', 'parameter', 'half', 'strided', 'array'}:
        assert read[key] == content[key], key
    assert list(map(type, read['numpy'])) == list(map(type, content['numpy']))
    np.testing.assert_array_equal(read['array'], content['array'])


def test_a_command_line_beside_the_weights_is_left_out(tmp_path: Path) -> None:
    beside = dict(args=argparse.Namespace(lr=0.1), table=defaultdict(int, a=1))
    torch.save({'w': torch.ones(1), **beside}, tmp_path / 'w.pth')
    read = load_plain(tmp_path / 'w.pth')
    assert torch.equal(read.pop('w'), torch.ones(1))
    assert read == dict(args=None, table=dict(a=1))
    # what was read can be written and read again
    torch.save(read, tmp_path / 'again.pth')
    assert load_plain(tmp_path / 'again.pth') == read


@FORMATS
def test_what_would_run_is_named_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    made = tmp_path / 'made'
    content = {'w': torch.ones(1), 'x': [MakesFolder(made)]}
    torch.save(content, tmp_path / 'w.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CodeInFileError, match='makedirs'):
        load_plain(tmp_path / 'w.pth')
    assert not made.exists()
    torch.load(tmp_path / 'w.pth', weights_only=False)
    assert made.exists()  # it would have run


def test_modules_and_functions_are_refused(tmp_path: Path) -> None:
    for thing in (nn.Linear(1, 1), torch.add, np.mean, torch.nn.functional.relu):
        torch.save({'x': thing}, tmp_path / 'w.pth')
        with pytest.raises(CodeInFileError, match='names'):
            load_plain(tmp_path / 'w.pth')


def test_getattr_is_never_called(tmp_path: Path) -> None:
    """A method that an object of MMEngine's has by itself is left out, as OneCycleLR's."""

    class Asked:
        def __reduce__(self) -> tuple:
            return getattr, ('text', 'upper')

    torch.save({'x': Asked(), 'y': OneCycleParamScheduler._annealing_cos}, tmp_path / 'w.pth')
    assert load_plain(tmp_path / 'w.pth') == {}


@pytest.mark.parametrize('name', ['get', 'pop', 'keys'])
def test_a_dict_cannot_bring_methods_of_its_own(tmp_path: Path, name: str) -> None:
    content = OrderedDict(a=OrderedDict(b=1))
    setattr(content['a'], name, {'not': 'a method'})
    content['a']._metadata = OrderedDict(version=2)
    setattr(content['a']._metadata, name, 3)
    torch.save(content, tmp_path / 'w.pth')
    read = load_plain(tmp_path / 'w.pth')['a']
    assert callable(getattr(read, name)) and callable(getattr(read._metadata, name))
    assert read == dict(b=1) and read._metadata == dict(version=2)


def test_functions_of_the_table_cannot_be_changed(tmp_path: Path) -> None:
    # a function, and then a state for it
    pickled = b'ctorch._utils\n_rebuild_tensor_v2\n}(Va\nK\x01ub.'
    plain = _PlainPickle.load(io.BytesIO(b'ctorch._utils\n_rebuild_tensor_v2\n.'))
    with pytest.raises(CodeInFileError, match='changes'):
        _PlainPickle.load(io.BytesIO(pickled))
    assert not hasattr(plain, 'a')


def test_shared_tuples_are_looked_at_once(tmp_path: Path) -> None:
    node: tuple = (1,)
    for _ in range(64):
        node = (node, node)
    torch.save(node, tmp_path / 'w.pth')
    read = load_plain(tmp_path / 'w.pth')
    assert read[0] is read[1]


def test_numpy_values_of_objects_are_refused(tmp_path: Path) -> None:
    for value in (np.array([None]), np.datetime64('2020-01-01'), np.zeros(1, 'i4,f4')):
        torch.save({'x': value}, tmp_path / 'w.pth')
        with pytest.raises(CodeInFileError, match='numpy'):
            load_plain(tmp_path / 'w.pth')


def test_programs_and_archives_are_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / 'script.pth'))
    with pytest.raises(CodeInFileError, match='TorchScript'):
        load_plain(tmp_path / 'script.pth')
    with tarfile.open(tmp_path / 'old.pth', 'w') as file:
        file.add(__file__, 'storages')
    with pytest.raises(CodeInFileError, match='tar'):
        load_plain(tmp_path / 'old.pth')
    (tmp_path / 'zeros.pth').write_bytes(bytes(20000))
    with pytest.raises(Exception, match='') as error:
        load_plain(tmp_path / 'zeros.pth')
    assert not isinstance(error.value, CodeInFileError)
