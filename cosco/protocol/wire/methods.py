"""Names, methods and limits of the services that protos/cosco/v1 defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass

from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.version import PROTOCOL, check_protocol

METADATA_SERVICE: Final = "cosco.v1.Metadata"
SHUFFLE_SERVICE: Final = "cosco.v1.Shuffle"
#: Messages of the metadata service stay below this; 100,000 mappers take 1.2 MB.
MAX_METADATA_MESSAGE_BYTES: Final = 64 << 20

#: method → (request type, reply type) of the metadata service.
METADATA_METHODS: Final[dict[str, tuple[Any, Any]]] = {
    name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
    for name, method in mpb.DESCRIPTOR.services_by_name["Metadata"].methods_by_name.items()
}

#: Methods that begin something with the service, so that their request says which protocol its
#: caller speaks → who that is.
_HELLOS: Final = {
    name: "a daemon" if name == "RegisterDaemon" else "a client"
    for name, (request_type, _) in METADATA_METHODS.items()
    if "protocol" in request_type.DESCRIPTOR.fields_by_name
}


def say_protocol(method: str, request: Any) -> Any:
    """Return a request of a method of the metadata service, which says what this build speaks if it
    is a hello."""
    if method in _HELLOS:
        request.protocol = PROTOCOL
    return request


def request_parser(method: str) -> Callable[[bytes], Any]:
    """Return what parses requests of a method of the metadata service.

    It raises IncompatibleVersion for a hello whose protocol this build does not understand.
    """
    request_type, _ = METADATA_METHODS[method]
    peer = _HELLOS.get(method)
    if peer is None:
        parse: Callable[[bytes], Any] = request_type.FromString
        return parse

    def parse_hello(data: bytes) -> Any:
        request = request_type.FromString(data)
        check_protocol(request.protocol, peer)
        return request

    return parse_hello
