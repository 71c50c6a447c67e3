"""Opening media files, which are untrusted.

Only the `file` protocol and self-contained container formats are open, so nothing that a file says can make the
decoder read another file or reach a host; pictures above a limit are not decoded.
"""

import errno
import re
from pathlib import Path

import av

from vlmquant.errors import VideoError

MAX_PIXELS = 8192 * 4320
"""The largest picture that is decoded: 8K cinema, in any orientation."""

_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,obu,ivf,m4v,flv,ogg,asf,mxf,nut,gif,dv,wtv,yuv4mpegpipe"
)
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
_INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS} | DECODER_OPTIONS
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|(data|concat|pipe):", re.IGNORECASE)  # Path makes one slash of "//"


def open_container(path: str | Path) -> av.container.InputContainer:
    """Open a media file for reading, restricted as the top of this module says.

    Raises:
        VideoError: no such file, a folder, a URL, an empty file, a playlist or still image, a damaged header (an MP4
            cut before its index).
        MemoryError: there is not enough memory.
    """
    file = checked_file(path)
    try:
        return av.open(str(file.absolute()), options=_INPUT_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise_when_out_of_memory(error)
        raise VideoError(
            f"{path} cannot be opened as a video: {error.strerror}; expected a complete file in a common container "
            "(MP4, MKV, WebM, AVI, TS, ...), neither a playlist nor a still image"
        ) from error


def raise_when_out_of_memory(error: av.FFmpegError) -> None:
    """Raise MemoryError for the FFmpeg errors that mean it (EAGAIN: no threads): the video has no part in them."""
    if error.errno in (errno.ENOMEM, errno.EAGAIN):
        raise MemoryError("FFmpeg: not enough memory") from error


def checked_file(path: str | Path) -> Path:
    """Return the path of a file that can be opened. Raises VideoError when it is none."""
    file = Path(path)
    try:
        if file.is_dir():
            raise VideoError(f"{path} is a folder; pass one of the video files in it")
        if not file.is_file():
            if _ADDRESS.match(str(path)):
                raise VideoError(f"{path} is an address, not a file; record or download it, then pass the file")
            raise VideoError(f"{path} is not a file; check the path")
        if file.stat().st_size == 0:
            raise VideoError(f"{path} is empty (0 bytes); copy it again")
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        name = f"{str(path)[:60]}..." if len(str(path)) > 60 else str(path)
        raise VideoError(f"{name} cannot be opened: {getattr(error, 'strerror', error)}; check the path") from error
    return file
