"""The HTTP interface of the metadata service, which needs the extra `cosco[http]`: docs/http.md."""
