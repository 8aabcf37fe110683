"""The file share of a gateway, as a folder: what is dropped goes to S3, what is published comes back."""

import threading
from pathlib import Path
from typing import Any, Self

from mrirecon.contract import keys


class Share:
    """Follows ``folder``: ``incoming/<site>/<lane>/`` goes to the raw bucket, images come to ``images/``.

    A file is uploaded when its size has not changed for two looks, as with a gateway's settling time.
    An image folder is copied when its record is there: the record is the publication.
    """

    def __init__(self, folder: Path, s3: Any, raw_bucket: str, images_bucket: str) -> None:
        self.folder = folder
        self.images = self.folder / "images"
        self._s3, self._raw, self._images = s3, raw_bucket, images_bucket
        self._sizes: dict[Path, int] = {}
        self._sent: set[Path] = set()
        self._here: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="share", daemon=True)
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        for lane in keys.Priority:
            (self.folder / keys.INCOMING / "main" / lane.value).mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _follow(self) -> None:
        while not self._stop.wait(1.0):
            try:
                self._send()
                self._fetch()
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _send(self) -> None:
        for path in sorted((self.folder / keys.INCOMING).rglob("*")):
            if not path.is_file() or path in self._sent:
                continue
            size = path.stat().st_size
            if self._sizes.get(path) == size:
                self._s3.upload_file(str(path), self._raw, path.relative_to(self.folder).as_posix())
                self._sent.add(path)
            self._sizes[path] = size

    def _fetch(self) -> None:
        found = self._s3.list_objects_v2(Bucket=self._images, Prefix=keys.IMAGES).get("Contents", [])
        published = {one["Key"].rsplit("/", 1)[0] for one in found if one["Key"].endswith(keys.RECORD_FILE)}
        for one in found:
            place, key = one["Key"].split("/", 3)[:3], one["Key"]
            if "/".join(place) in published and key not in self._here:
                target = self.folder / key
                target.parent.mkdir(parents=True, exist_ok=True)
                self._s3.download_file(self._images, key, str(target))
                self._here.add(key)
