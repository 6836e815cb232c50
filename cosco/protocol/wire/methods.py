"""Names, methods and limits of the services that protos/cosco/v1 defines."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass

from cosco.protocol.pb import metadata_pb2 as mpb

METADATA_SERVICE: Final = "cosco.v1.Metadata"
SHUFFLE_SERVICE: Final = "cosco.v1.Shuffle"
#: Messages of the metadata service stay below this; 100,000 mappers take 1.2 MB.
MAX_METADATA_MESSAGE_BYTES: Final = 64 << 20

#: method → (request type, reply type) of the metadata service.
METADATA_METHODS: Final[dict[str, tuple[Any, Any]]] = {
    name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
    for name, method in mpb.DESCRIPTOR.services_by_name["Metadata"].methods_by_name.items()
}
