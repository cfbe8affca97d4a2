"""Files that appear whole, what is told where they cannot, and locks."""

from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from arxivclf.corpus.sources import remote_output
from arxivclf.errors import DataError
from arxivclf.files import whole_file
from arxivclf.labelling.parts import Parts


def test_what_cannot_be_read_meanwhile_is_not_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), whole_file(tmp_path / "out") as file:
        file.write((tmp_path / "missing").read_bytes())
    with pytest.raises(ValueError, match="of the block"), remote_output((tmp_path / "out").as_uri()) as file:
        raise ValueError("of the block")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/out", "file/deep/out", "folder"])
def test_what_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=rf"{place}: cannot be written: "), whole_file(tmp_path / place) as file:
        file.write(b"x")


def test_who_stops_while_waiting_for_a_lock_lets_go_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "x.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "_refuse_live", interrupted)
        with pytest.raises(KeyboardInterrupt) as stopped, Parts(output):
            pass
    # While the error lives, so does all that it went through, as in a notebook.
    with Parts(output) as parts:
        assert stopped.value.__traceback__ is not None
        with pytest.raises(filelock.Timeout), filelock.FileLock(parts.folder / "lock", timeout=0):
            pass
    assert list(tmp_path.iterdir()) == []
