"""The gateway's link to nodes: framed msgpack over TCP."""
