"""Reading weight files: every layout, no code from the file, sentences for what is wrong."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.pickles import MakesFolder
from helpers.teachers import save
from safetensors.torch import save_file
from torch import Tensor

from hgkd_mm.weights.reading import (
    CheckpointError,
    UntrustedCheckpointError,
    local_file,
    read_tensors,
    under_prefix,
)


def weights() -> dict[str, Tensor]:
    return {'blocks.0.norm1.weight': torch.arange(4.0), 'cls_token': torch.full((1, 1, 4), 0.5)}


def check(read: dict[str, Tensor]) -> None:
    assert read.keys() == weights().keys()
    for name, value in weights().items():
        torch.testing.assert_close(read[name], value, rtol=0, atol=0)


@pytest.mark.parametrize('key', ['state_dict', 'model', 'module', None])
def test_reads_weights_from_where_trainers_put_them(tmp_path: Path, key: str | None) -> None:
    check(read_tensors(save(weights(), tmp_path / 'w.pth', key)))


def test_reads_safetensors_and_removes_the_prefix_of_ddp(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / 'w.safetensors')
    check(read_tensors(str(tmp_path / 'w.safetensors')))
    wrapped = {f'module.{name}': value for name, value in weights().items()}
    check(read_tensors(save(wrapped, tmp_path / 'w.pth')))


def test_code_in_the_file_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    path = tmp_path / 'more.pth'
    torch.save({'model': weights(), 'extra': MakesFolder(made)}, path)
    with pytest.raises(UntrustedCheckpointError, match='makedirs') as error:
        read_tensors(path, key='config key a.checkpoint')
    assert not made.exists()
    for part in (str(path), 'a.checkpoint', '--trust-checkpoint', 'trust_checkpoint=True'):
        assert part in str(error.value)
    check(read_tensors(path, trusted=True))
    assert made.exists()  # it would have run


def test_a_cut_file_is_called_broken(tmp_path: Path) -> None:
    path = save(weights(), tmp_path / 'w.pth')
    path.write_bytes(path.read_bytes()[:-200])
    for trusted in (False, True):
        with pytest.raises(CheckpointError, match=r'w\.pth .*config key a\.checkpoint') as error:
            read_tensors(path, key='config key a.checkpoint', trusted=trusted)
        assert not isinstance(error.value, UntrustedCheckpointError)


@pytest.mark.parametrize('content', [b'', b'<html>404 Not Found</html>', b'\x80\x02}'])
@pytest.mark.parametrize('name', ['w.pth', 'w.safetensors'])
def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(path)


@pytest.mark.parametrize('content', [{'state_dict': {}}, {'epoch': 3}, [1, 2], {'model': 'x'}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='w.pth .*state_dict, model, module'):
        read_tensors(tmp_path / 'w.pth')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'gone\.pth .*config key a\.checkpoint'):
        read_tensors(tmp_path / 'gone.pth', key='config key a.checkpoint')
    with pytest.raises(ValueError, match=r'config key a\.checkpoint is None'):
        read_tensors(None, key='config key a.checkpoint')
    with pytest.raises(FileNotFoundError, match='mmcls://vit'), local_file('mmcls://vit'):
        pass


def test_a_prefix_and_what_there_is_instead() -> None:
    picked = under_prefix(weights(), 'blocks.', source='w.pth', key='config key a.prefix')
    assert picked.keys() == {'0.norm1.weight'}
    message = r"w\.pth .*'blocks\.1\.' \(config key a\.prefix\).*blocks \(1\), cls_token \(1\)"
    with pytest.raises(ValueError, match=message):
        under_prefix(weights(), 'blocks.1.', source='w.pth', key='config key a.prefix')


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path, list]]:
    """A web server on tmp_path/www that counts requests, and an empty cache of torch.hub."""
    root, requests = tmp_path / 'www', []
    root.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            requests.append(args[1])

    handler = functools.partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{httpd.server_port}', root, requests
        httpd.shutdown()
        thread.join()


def test_urls_are_fetched_once_and_checked(server: tuple[str, Path, list]) -> None:
    url, root, requests = server
    plain = save(weights(), root / 'plain.pth')
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    plain.rename(root / f'w-{digest}.pth')
    for _ in range(2):
        check(read_tensors(f'{url}/w-{digest}.pth'))
    assert len(requests) == 1


def test_downloads_that_fail_are_named(server: tuple[str, Path, list]) -> None:
    url, root, _ = server
    with pytest.raises(FileNotFoundError, match=r'gone\.pth.*config key a\.checkpoint'):
        read_tensors(f'{url}/gone.pth', key='config key a.checkpoint')
    # its name says what it should hold
    save(weights(), root / 'w-00000000.pth')
    with pytest.raises(CheckpointError, match='w-00000000.pth'):
        read_tensors(f'{url}/w-00000000.pth')
