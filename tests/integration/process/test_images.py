"""Root file systems from directories, tars and OCI layouts; what they hold cannot escape."""

import ctypes
import errno
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ringfence.backends.process import ProcessBackend, images, unpacked, unpacking
from ringfence.errors import ImageError, ImageNotFoundError, PolicyDeniedError
from ringfence.guest.protocol import Cred
from tests.integration.process.conftest import grant, opened


def make_rootfs(path: Path, busybox: Path) -> Path:
    for name in ("bin", "etc", "opt/deep"):
        (path / name).mkdir(parents=True)
    (path / "bin/sh").write_bytes(busybox.read_bytes())
    (path / "bin/sh").chmod(0o755)
    (path / "etc/passwd").write_text("me:x:1234:1234::/:/bin/sh\n")
    (path / "etc/release").write_text("mine\n")
    os.chown(path / "etc/release", 1234, 1234)
    return path


def make_tar(path: Path, rootfs: Path) -> Path:
    with tarfile.open(path, "w") as file:
        file.add(rootfs, ".")
    return path


def the_shell(below: Path) -> Path:
    [found] = below.rglob("bin/sh")
    return found


def make_evil_tar(path: Path, victim: Path) -> Path:
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("etc")
        link.type, link.linkname = tarfile.SYMTYPE, str(victim)
        file.addfile(link)
        entry = tarfile.TarInfo("etc/pwned")
        entry.size = 1
        file.addfile(entry, io.BytesIO(b"x"))
    return path


KILLED = """
import os, signal, sys
from pathlib import Path
from ringfence.backends.process.images import Images

Images(Path(sys.argv[1]), None)._new()
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_client(images: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, images], check=False, timeout=60)


def begun(images: Path) -> list[Path]:
    """The images that somebody began to unpack."""
    return list(images.glob(".new-*"))


async def test_a_directory_and_a_tar_are_images(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    rootfs = make_rootfs(tmp_path / "rootfs", busybox)
    archive = make_tar(tmp_path / "image.tar", rootfs)
    digests = []
    for image in (rootfs, archive, archive):
        async with opened(backend, image=str(image)) as sandbox:
            told = await sandbox.sh("read line < /etc/release; echo $line /*")
            user = await sandbox.session.user("me")
            refused = await sandbox.sh("echo x > /etc/new", user=0)
            owner = await sandbox.session.files.stat("/etc/release", Cred(1234, 1234))
            digests.append(sandbox.record.image_digest)
        assert told.stdout == b"mine /bin /dev /etc /opt /proc /run /tmp\n"
        assert (user.uid, owner.uid) == (1234, 1234)
        assert refused.code != 0
    assert digests[0] is None
    assert digests[1] == digests[2]
    assert str(digests[1]).startswith("sha256:")


async def test_an_image_is_on_the_disk_before_it_has_its_name(
    backend: ProcessBackend, tmp_path: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks into it again: without power it would be found with empty files."""
    archive = make_tar(tmp_path / "image.tar", make_rootfs(tmp_path / "rootfs", busybox))
    real = images._sync
    named: list[Path] = []

    def sync(path: Path) -> None:
        assert (path / "etc/release").is_file()
        named.extend(path.parents[1].glob("sha256-*"))
        real(path)
        named.append(path)

    monkeypatch.setattr(images, "_sync", sync)
    async with opened(backend, image=str(archive)) as sandbox:
        assert (await sandbox.sh("true")).code == 0
    assert [path.name for path in named] == ["rootfs"]


async def test_what_was_unpacked_goes_when_no_sandbox_uses_it(
    backend: ProcessBackend, tmp_path: Path, busybox: Path, state_directory: Path
) -> None:
    """However long ago it was started."""
    archive = make_tar(tmp_path / "image.tar", make_rootfs(tmp_path / "rootfs", busybox))
    directory = state_directory / "process"
    async with opened(backend, image=str(archive)) as sandbox:
        [rootfs] = (directory / "images").glob("sha256-*")
        os.utime(rootfs, (1, 1))
        assert unpacked.prune(directory, older_than=1) == []
        assert (await sandbox.sh("echo /etc/r*")).stdout == b"/etc/release\n"
    [gone] = unpacked.prune(directory, older_than=1)
    assert gone.digest == sandbox.record.image_digest
    assert not rootfs.exists()
    async with opened(backend, image=str(archive)) as sandbox:
        assert (await sandbox.sh("true")).code == 0


async def test_a_set_user_id_program_of_an_image_is_nobodys_way_to_root(
    backend: ProcessBackend, tmp_path: Path, busybox: Path, state_directory: Path
) -> None:
    """It keeps its mode inside, where it gives nothing; on the host nobody else gets to it, also
    where an earlier version left the way open."""
    rootfs = make_rootfs(tmp_path / "rootfs", busybox)
    (rootfs / "bin/sh").chmod(0o4755)
    archive = make_tar(tmp_path / "image.tar", rootfs)
    for _ in range(2):
        async with opened(backend, image=str(archive)) as sandbox:
            assert (await sandbox.sh("exit 0", user=1234)).code == 0
        program = the_shell(state_directory)
        assert program.stat().st_mode & 0o4000
        images = program.parents[2]
        assert images.stat().st_mode & 0o077 == 0
        images.chmod(0o711)


async def test_a_tar_cannot_write_outside_of_its_own_image(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    archive = make_evil_tar(tmp_path / "evil.tar", victim)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        await grant(backend, image=str(archive))
    assert list(victim.iterdir()) == []


async def test_a_name_is_no_image_here_and_the_hosts_own_root_is_none_either(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    with pytest.raises(ImageNotFoundError, match="docker"):
        await grant(backend, image="python:3.12-slim")
    with pytest.raises(ImageNotFoundError):
        await grant(backend, image=str(tmp_path / "absent"))
    with pytest.raises(PolicyDeniedError):
        await grant(backend, image="/")


class Layout:
    """An OCI layout that is written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
        self.layers: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        encoded = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / encoded).write_bytes(data)
        kind = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": kind, "digest": f"sha256:{encoded}", "size": len(data)}

    def layer(self, files: dict[str, bytes]) -> None:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.mode, entry.size = 0o755, len(content)
                if name.endswith("/"):
                    entry.mode, entry.type = 0o555, tarfile.DIRTYPE
                archive.addfile(entry, io.BytesIO(content))
        self.layers.append(self.blob(gzip.compress(data.getvalue()), "layer.v1.tar+gzip"))

    def system(self, shell: Path, files: dict[str, bytes]) -> None:
        """A first layer, with a shell."""
        self.layer({"bin/sh": shell.read_bytes(), **files})

    def close(self, name: str, **config: Any) -> None:
        self.end(name, config)

    def end(self, name: str, config: Any) -> None:
        described = {"architecture": "amd64", "os": "linux", "config": config}
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(described).encode(), "config.v1+json"),
            "layers": self.layers,
        }
        entry = self.blob(json.dumps(manifest).encode(), "manifest.v1+json")
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        (self.path / "index.json").write_text(json.dumps({"manifests": [entry]}))


@pytest.fixture
def layout(tmp_path: Path, busybox: Path) -> Layout:
    made = Layout(tmp_path / "layout")
    system = {"bin/sh": busybox.read_bytes()}
    made.layer({**system, "data/old": b"old", "data/kept": b"kept", "full/x": b"x"})
    made.layer({"data/.wh.old": b"", "full/.wh..wh..opq": b"", "full/y": b"y"})
    made.close("mine", User="1234", Env=["COLOUR=blue"], WorkingDir="/data")
    return made


async def test_an_oci_layout_is_an_image_whose_layers_hide_what_they_say(
    backend: ProcessBackend, layout: Layout
) -> None:
    for reference in (layout.path, f"{layout.path}:mine"):
        spec, facts = await grant(backend, image=str(reference))
        assert facts.image.user == spec.user == "1234"
        assert facts.image.env == {"COLOUR": "blue"}
        async with opened(backend, image=str(reference)) as sandbox:
            told = await sandbox.sh("echo /data/* /full/*", user=1234)
        assert told.stdout == b"/data/kept /full/y\n"
        assert str(sandbox.record.image_digest).startswith("sha256:")


async def test_an_image_in_the_store_of_the_state_directory_is_one(
    backend: ProcessBackend, state_directory: Path, busybox: Path
) -> None:
    """Nothing else of that directory may be an image: it would be seen inside."""
    layout = Layout(state_directory / "store")
    layout.system(busybox, {"who": b"mine\n"})
    layout.close("mine")
    for reference in (layout.path, f"{layout.path}:mine"):
        async with opened(backend, image=str(reference)) as sandbox:
            told = await sandbox.sh("read line < /who; echo $line")
        assert told.stdout == b"mine\n"
    for place in (state_directory, layout.path / "blobs"):
        with pytest.raises(PolicyDeniedError, match="own state"):
            await grant(backend, image=str(place))


async def test_a_layer_hides_names_that_tar_does_not_list_as_they_are(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    layout, names = Layout(tmp_path / "layout"), ("ü", "a\nb", "tab\t", "back\\slash", "a b", "-x")
    layout.system(busybox, {"ö/old": b""})
    layout.layer({f"data/{name}": b"" for name in ("kept", *names)})
    layout.layer(
        {f"data/.wh.{name}": b"" for name in names} | {"ö/.wh..wh..opq": b"", "ö/new": b""}
    )
    layout.close("mine")
    async with opened(backend, image=str(layout.path)) as sandbox:
        told = await sandbox.sh("echo /data/* /ö/*")
    assert told.stdout.decode() == "/data/kept /ö/new\n"


async def test_a_layer_puts_a_file_or_a_link_where_a_directory_was(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    layout.system(busybox, {"full/deep/x": b"", "other": b""})
    layout.layer({"full": b"a file\n", "other/": b"", "other/y": b""})
    layout.close("mine")
    async with opened(backend, image=str(layout.path)) as sandbox:
        told = await sandbox.sh("read line < /full; echo $line /other/*")
    assert told.stdout == b"a file /other/y\n"


async def test_a_layer_goes_through_the_links_below_it_and_never_out_of_the_image(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    """As programs write them that make no overlay: /var/run is /run in many an image."""
    rootfs = make_rootfs(tmp_path / "rootfs", busybox)
    (rootfs / "var").mkdir()
    (rootfs / "var/own").symlink_to("/opt/deep")
    (rootfs / "var/usr").symlink_to("/usr")
    layout = Layout(tmp_path / "layout")
    first = make_tar(tmp_path / "first.tar", rootfs).read_bytes()
    layout.layers.append(layout.blob(first, "layer.v1.tar"))
    layout.layer({"var/own/x": b"mine\n"})
    layout.close("mine")
    async with opened(backend, image=str(layout.path)) as sandbox:
        told = await sandbox.sh("read line < /opt/deep/x; echo $line")
    assert told.stdout == b"mine\n"
    layout.layer({"var/usr/x": b"not mine\n"})
    layout.close("mine")
    with pytest.raises(ImageError, match="cannot be unpacked"):
        await grant(backend, image=str(layout.path))
    assert not Path("/usr/x").exists()  # noqa: ASYNC240 - at once


async def test_a_layer_of_more_names_than_memory_can_hold_is_refused(
    backend: ProcessBackend, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some megabytes of headers, packed, list names of gigabytes."""
    monkeypatch.setattr(unpacking, "_MOST_PRINTED", 50_000)
    layout.layer({f"{number:0100}": b"" for number in range(1000)})
    layout.close("mine")
    with pytest.raises(ImageError, match="too many names"):
        await grant(backend, image=str(layout.path))


async def test_an_image_that_the_disk_did_not_take_has_no_name(
    backend: ProcessBackend, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written to the disk is told by the call that waits for it, and only once:
    the next start found the image, with zeros for files."""

    class Library:
        def syncfs(self, _: int) -> int:
            ctypes.set_errno(errno.EIO)
            return -1

    with monkeypatch.context() as patched:
        patched.setattr(images.ctypes, "CDLL", lambda *_, **__: Library())
        with pytest.raises(ImageError, match="cannot be made: Input/output error"):
            await grant(backend, image=str(layout.path))
    assert not list((tmp_path / "state").rglob("sha256-*"))
    await grant(backend, image=str(layout.path))
    assert len(list((tmp_path / "state").rglob("sha256-*"))) == 1


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
async def test_a_layer_whose_header_would_take_all_memory_is_refused(
    backend: ProcessBackend, layout: Layout, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    """Packed it is some kilobytes, and tar holds all of it."""
    monkeypatch.setattr(unpacking, "_MOST_MEMORY", 64 * 2**20)
    size = 80 * 2**20
    claiming = tarfile.TarInfo("x")
    claiming.type, claiming.size = kind, size
    text = b"%d comment=%s\n" % (size, b"x" * (size - len(f"{size} comment=\n")))
    member = tarfile.TarInfo("y").tobuf()
    header = claiming.tobuf(tarfile.GNU_FORMAT)
    layer = gzip.compress(header + text + member + bytes(1024), 1)
    layout.layers.append(layout.blob(layer, "layer.v1.tar+gzip"))
    layout.close("mine")
    with pytest.raises(ImageError, match="memory exhausted"):
        await grant(backend, image=str(layout.path))


@pytest.mark.parametrize("hosts", [None, b"", b"10.0.0.1 own\n"])
async def test_an_image_that_names_no_host_names_localhost(
    backend: ProcessBackend, tmp_path: Path, busybox: Path, hosts: bytes | None
) -> None:
    """As in a container, whose runtime makes the file."""
    layout = Layout(tmp_path / "layout")
    layout.system(busybox, {} if hosts is None else {"etc/hosts": hosts})
    layout.close("mine")
    async with opened(backend, image=str(layout.path)) as sandbox:
        told = await sandbox.sh("read address name < /etc/hosts; echo $address $name")
    assert told.stdout == (hosts or b"127.0.0.1 localhost\n")


async def test_only_the_devices_at_the_top_are_left_out(
    backend: ProcessBackend, tmp_path: Path, busybox: Path
) -> None:
    """A directory called dev elsewhere is the image's own."""
    rootfs = make_rootfs(tmp_path / "rootfs", busybox)
    for name in ("dev", "opt/deep/dev"):
        (rootfs / name).mkdir()
        (rootfs / name / "file").write_text("")
    os.mknod(rootfs / "dev/zero", 0o20666, os.makedev(1, 5))
    archive = make_tar(tmp_path / "image.tar", rootfs)
    async with opened(backend, image=str(archive)) as sandbox:
        told = await sandbox.sh("echo /opt/deep/dev/* /dev/file")
    assert told.stdout == b"/opt/deep/dev/file /dev/file\n"
    assert not list(the_shell(archive.parent / "state").parents[1].glob("dev/*"))


async def test_what_a_client_left_that_was_killed_while_it_unpacked_goes_with_the_next(
    backend: ProcessBackend, tmp_path: Path, busybox: Path, state_directory: Path
) -> None:
    images = state_directory / "process/images"
    archive = make_tar(tmp_path / "image.tar", make_rootfs(tmp_path / "rootfs", busybox))
    await grant(backend, image=str(archive))
    left_by_a_killed_client(images)
    assert begun(images)
    other = make_tar(tmp_path / "other.tar", tmp_path / "rootfs/etc")
    await grant(backend, image=str(other))
    assert not begun(images)


async def test_a_layout_with_a_document_of_another_shape_is_refused(
    backend: ProcessBackend, layout: Layout
) -> None:
    layout.end("mine", "text")
    with pytest.raises(ImageError, match="config"):
        await grant(backend, image=str(layout.path))
    for environment in (5, "A=b", [5], {"A": "b"}):
        layout.close("mine", Env=environment)
        with pytest.raises(ImageError, match="Env"):
            await grant(backend, image=str(layout.path))


async def test_blobs_that_are_no_files_are_refused_and_not_waited_for(
    backend: ProcessBackend, layout: Layout
) -> None:
    index = json.loads((layout.path / "index.json").read_text())
    for digest in (index["manifests"][0]["digest"], layout.layers[0]["digest"]):
        blob = layout.path / "blobs" / digest.replace(":", "/")
        content = blob.read_bytes()
        blob.unlink()
        os.mkfifo(blob)
        with pytest.raises(ImageError, match="regular file"):
            await grant(backend, image=str(layout.path))
        blob.unlink()
        blob.mkdir()
        with pytest.raises(ImageError, match="regular file"):
            await grant(backend, image=str(layout.path))
        blob.rmdir()
        blob.write_bytes(content)


async def test_a_layout_that_others_may_write_to_is_unpacked_as_it_was_verified(
    backend: ProcessBackend, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images.verified

    def spoilt_after(path: Path, *rest: Any) -> Any:
        path.chmod(0o666)
        archive = real(path, *rest)
        path.write_bytes(b"x" * 1000)
        return archive

    monkeypatch.setattr(images, "verified", spoilt_after)
    async with opened(backend, image=str(layout.path)) as sandbox:
        told = await sandbox.sh("echo /data/* /full/*", user=1234)
    assert told.stdout == b"/data/kept /full/y\n"


async def test_what_cannot_be_looked_at_is_no_directory_of_a_system(
    backend: ProcessBackend, tmp_path: Path
) -> None:
    """As for a user who may not."""
    image = tmp_path / "image"
    image.mkdir()
    (image / "oci-layout").symlink_to("oci-layout")
    with pytest.raises(ImageError, match="cannot be read"):
        await grant(backend, image=str(image))


async def test_a_damaged_layout_is_refused(backend: ProcessBackend, layout: Layout) -> None:
    blob = layout.path / "blobs" / layout.layers[0]["digest"].replace(":", "/")
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        await grant(backend, image=str(layout.path))
    blob.unlink()
    with pytest.raises(ImageError, match="damaged"):
        await grant(backend, image=str(layout.path))


async def test_an_image_that_is_not_in_the_layout_is_refused(
    backend: ProcessBackend, layout: Layout
) -> None:
    with pytest.raises(ImageError, match="other"):
        await grant(backend, image=f"{layout.path}:other")
