"""The forwarder: batches records on a host, keeps them on disk, and sends them until they are acknowledged."""
