"""One file a verb: parse, call one function, show. torch is imported inside commands."""
