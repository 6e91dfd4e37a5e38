"""HTTP/2 for the client port: frames, header blocks, streams, connections (RFC 9113).

A connection is one ``asyncio.Protocol`` that runs an ASGI application, one task a stream, in the
event loop that everything else runs in. HPACK is the ``hpack`` library's, HTTP/1.1 is uvicorn's;
here is what no library gives in a form that etcd's clients need (why: decision 0014).

    frames      frames as bytes, error codes, faults
    headers     header blocks to requests, and back
    stream      one request and its response, as ASGI sees them
    connection  frames in, frames out, flow control
    keepalive   pings for clients that are silent
    tls         what is below all this where URLs are https://
    refusals    clients that are turned away at the door
    acceptor    tells HTTP/2 from HTTP/1.1, and shuts both down
"""
