"""Compression: files in which zeros cost little, and what a file takes on its way to where it runs."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

from chase.errors import ExportError, reason

LEVEL = 6  # what gzip and zipfile take if nothing is said
_INDEX_BYTES = 8  # ONNX states the position of a value as an int64
_BLOCK_BYTES = 1 << 20


def sparse(proto: Any) -> Any:
    """A copy of an ONNX model that lists the values of a weight which are not zero, wherever that takes less.

    Each such weight becomes a Constant of the same name and shape with a sparse value. It costs 12 bytes for a value in
    fp32, so it pays below a density of a third (fp16: a fifth, int8: a ninth). ONNX Runtime and OpenVINO read it and
    compute with the same dense weights as before; a negative zero comes back as zero. TensorRT refuses it. (What ONNX
    calls sparse_initializer, ONNX Runtime alone reads, and the strict form of onnx.checker does not.)
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    constants = {tensor.name: node for tensor in proto.graph.initializer if (node := _constant(tensor)) is not None}
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name not in constants]
    for field, entries in (
        (made.graph.initializer, tensors),
        (made.graph.node, [*constants.values(), *proto.graph.node]),
    ):
        del field[:]
        field.extend(entries)
    return made


def _constant(tensor: Any) -> Any:
    """A node that gives the same tensor from its nonzero values; None where that takes no less."""
    import numpy
    from onnx import SparseTensorProto, helper, numpy_helper

    values = numpy_helper.to_array(tensor).reshape(-1)
    positions = numpy.flatnonzero(values)
    if positions.size * (values.itemsize + _INDEX_BYTES) >= values.nbytes:
        return None
    listed = SparseTensorProto(
        values=numpy_helper.from_array(values[positions], tensor.name),
        indices=numpy_helper.from_array(positions.astype(numpy.int64), f"{tensor.name}_positions"),
        dims=tensor.dims,
    )
    node = helper.make_node("Constant", [], [tensor.name], name=tensor.name, sparse_value=listed)
    return node if node.ByteSize() < tensor.ByteSize() else None


def deflated(path: Path) -> None:
    """Rewrite a zip archive so that every entry of it is deflated; torch reads such archives as it does others.

    For TorchScript, torch.export and AOTInductor files, whose weights are stored as they are. One entry is read at a
    time, in blocks; the archive is replaced when the new one is whole.

    Raises:
        ExportError: if the file is no zip archive.
    """
    made = path.with_name(f"{path.name}.deflated")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as new:
            for entry in old.infolist():
                copy = zipfile.ZipInfo(entry.filename, entry.date_time)
                copy.compress_type, copy.file_size = zipfile.ZIP_DEFLATED, entry.file_size  # the size decides on zip64
                with old.open(entry) as source, new.open(copy, "w") as target:
                    shutil.copyfileobj(source, target, _BLOCK_BYTES)
    except zipfile.BadZipFile as error:
        made.unlink(missing_ok=True)
        raise ExportError(f"{path.name} cannot be compressed: it is no zip archive ({reason(error)})") from error
    os.replace(made, path)


def transfer_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder, each compressed by zlib at level 6.

    That is gzip's default, and what a web server or a container registry sends; never more than 1.001 times the file.
    """
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return sum(_compressed_bytes(file) for file in files)


def _compressed_bytes(file: Path) -> int:
    compressor, count = zlib.compressobj(LEVEL), 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            count += len(compressor.compress(block))
    return count + len(compressor.flush())
