"""One stage a module, with its back ends."""
