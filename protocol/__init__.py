"""The channel itself, without I/O, clocks or randomness: types, encodings, signatures, state machines."""
