"""The ways to replicate. Each is a whole ``consensus.engine.Engine``; choose one by its class."""
