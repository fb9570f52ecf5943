"""The process under chicoryd that runs the embedded broker's server."""
