"""Which pictures of a data set can be read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .. import checks
from ..kernels.threads import get_num_threads
from .decode import ImageError
from .parts import subset
from .sets import Images

__all__ = ["readable"]


def readable(images: Images, *, threads: int | None = None, progress: bool = False) -> tuple[Images, dict[str, str]]:
    """The pictures that can be read, and why the others cannot; every one is decoded once.

    For work in which each picture is a row of the result, so that none may be missing later.

    Parameters
    ----------
    images : a data set
    threads : that decode; None: as many as the kernels use
    progress : show a bar on stderr

    Returns
    -------
    images : the data set itself where all can be read, or a subset of it, in its order
    reasons : {name: why it cannot be read}
    """
    from tqdm import tqdm

    if threads is not None:
        checks.integer("readable", "threads", threads, 1)

    def reason(index: int) -> str | None:
        try:
            images.pixels(index)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads or get_num_threads(), thread_name_prefix="zfcore-decode") as pool:
        found = list(tqdm(pool.map(reason, range(len(images))), "reading", len(images), unit="image",
                          disable=not progress))
    reasons = {images.names[index]: each for index, each in enumerate(found) if each is not None}
    return (subset(images, [each is None for each in found]) if reasons else images), reasons
