"""etcd v3 messages: .proto files written from the API facts, and the modules made from them."""
