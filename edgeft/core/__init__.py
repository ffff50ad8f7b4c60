"""Stage contract, artifact store, digests, events, seeds and the errors' base; stdlib only."""
