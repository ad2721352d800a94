"""The reference implementation's side of `tests/tuf_interop.rs`: writes a repository with python-tuf,
or reads one with its client. It decides nothing and prints only what it read.

    interop.py write DIR                         two states of a repository, DIR/first and DIR/second
    interop.py read REPOSITORY ROOT OUT PATH...  refresh from the trusted ROOT, then PATH... into OUT
"""

import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import unquote, urlparse

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import (
    DelegatedRole, Delegations, Key, Metadata, MetaFile, Root, Snapshot, SuccinctRoles, TargetFile,
    Targets, Timestamp,
)
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
BITS = 3


class Repository:
    """A repository with Ed25519, P-256 and RSA keys, delegations by path and by hash, and bins."""

    def __init__(self):
        self.signers = {
            "root": [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()],
            "timestamp": [CryptoSigner.generate_ed25519()],
            "snapshot": [CryptoSigner.generate_rsa()],
            "targets": [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519()],
            "app": [CryptoSigner.generate_ed25519()],
            "hashed": [CryptoSigner.generate_ed25519()],
            "bin": [CryptoSigner.generate_ed25519()],
        }
        self.root = Root(expires=EXPIRES, consistent_snapshot=True)
        for role in ("root", "timestamp", "snapshot", "targets"):
            self.appoint(role)
            self.root.roles[role].threshold = len(self.signers[role])
        self.roles = {"targets": Targets(expires=EXPIRES)}
        self.delegate("targets", DelegatedRole("app", [], 1, False, paths=["app/*", "app/*/*"]))
        prefixes = [f"{n:x}" for n in range(16)]
        self.delegate("app", DelegatedRole("hashed", [], 1, True, path_hash_prefixes=prefixes))
        bins = SuccinctRoles([], 1, BITS, "bin")
        self.roles["hashed"].delegations = Delegations({}, succinct_roles=bins)
        for name in bins.get_roles():
            self.roles[name] = Targets(expires=EXPIRES)
            self.signers[name] = self.signers["bin"]
        key = self.signers["bin"][0].public_key
        self.roles["hashed"].add_key(key)
        self.timestamp, self.snapshot = Timestamp(expires=EXPIRES), Snapshot(expires=EXPIRES)
        self.files = {}

    def appoint(self, role):
        for signer in self.signers[role]:
            self.root.add_key(signer.public_key, role)

    def delegate(self, parent, role):
        if self.roles[parent].delegations is None:
            self.roles[parent].delegations = Delegations({}, {})
        self.roles[parent].delegations.roles[role.name] = role
        self.roles[parent].add_key(self.signers[role.name][0].public_key, role.name)
        self.roles[role.name] = Targets(expires=EXPIRES)

    def add(self, role, path, content):
        target = TargetFile.from_data(path, content, ["sha256", "sha512"])
        self.roles[role].targets[path] = target
        folder, _, name = path.rpartition("/")
        for digest in target.hashes.values():
            self.files[f"targets/{folder}/{digest}.{name}"] = content

    def sign(self, name, signed, also=()):
        metadata = Metadata(signed)
        for signer in [*self.signers[name], *also]:
            metadata.sign(signer, append=True)
        file = "timestamp.json" if name == "timestamp" else f"{signed.version}.{name}.json"
        data = metadata.to_bytes(JSONSerializer(compact=len(name) % 2 == 0))
        self.files[f"metadata/{file}"] = data
        return data

    def release(self):
        """Signs every role once more, from the leaves on."""
        for name, signed in self.roles.items():
            data = self.sign(name, signed)
            meta = MetaFile.from_data(signed.version, data, ["sha256"])
            self.snapshot.meta[f"{name}.json"] = meta
        data = self.sign("snapshot", self.snapshot)
        self.timestamp.snapshot_meta = MetaFile.from_data(self.snapshot.version, data, ["sha512"])
        self.sign("timestamp", self.timestamp)

    def write(self, folder):
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def write(folder):
    repository = Repository()
    repository.sign("root", repository.root)
    repository.add("targets", "top", b"at the top")
    repository.add("app", "app/1", b"the first app")
    repository.add("hashed", "app/deep/2", b"below a hash")
    bins = repository.roles["hashed"].delegations.succinct_roles
    repository.add(bins.get_role_for_target("app/binned"), "app/binned", b"in a bin")
    repository.release()
    repository.write(folder / "first")

    # Another root key and another timestamp key; the leaving root key signs its own leaving.
    leaving, gone = repository.signers["root"][0], repository.signers["timestamp"][0]
    repository.root.revoke_key(leaving.public_key.keyid, "root")
    repository.root.revoke_key(gone.public_key.keyid, "timestamp")
    repository.signers["root"][0] = CryptoSigner.generate_ed25519()
    repository.signers["timestamp"] = [CryptoSigner.generate_ecdsa()]
    repository.appoint("root")
    repository.appoint("timestamp")
    repository.root.version += 1
    repository.sign("root", repository.root, also=[leaving])
    repository.add("app", "app/1", b"the second app")
    for signed in [*repository.roles.values(), repository.snapshot, repository.timestamp]:
        signed.version += 1
    repository.release()
    repository.write(folder / "second")


class Files(FetcherInterface):
    """Serves a folder as a web server would."""

    def _fetch(self, url):
        path = Path(unquote(urlparse(url).path))
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        yield path.read_bytes()


def read(repository, root, out, paths):
    out.mkdir(parents=True, exist_ok=True)
    metadata = out / "metadata"
    shutil.rmtree(metadata, ignore_errors=True)
    metadata.mkdir()
    updater = Updater(
        str(metadata), f"file://{repository}/metadata/", str(out), f"file://{repository}/targets/",
        fetcher=Files(), bootstrap=root.read_bytes(),
    )
    updater.refresh()
    for number, path in enumerate(paths):
        found = updater.get_targetinfo(path)
        if found is None:
            sys.exit(f"no role lists `{path}`")
        updater.download_target(found, str(out / str(number)))
        print(path, found.length)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        read(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
