"""Re-encoding a collection under live traffic: what is decided, what is remembered, and what moves the data.

Pure: machine (states, moves and verbs), record (what is kept of a migration), pace (throttles, batch sizes), verify
(what two indexes must agree on). Kept in SQL: database (tables), journal (keys that writes have touched), store
(migrations, history, the controller's lease), ledger (signatures of the vectors written). At work: texts (encoding, and
texts that cannot be), converge (the one idempotent routine), backfill (pages of it), verifying, prepare, runner.
What an operator says: plan, verbs, api.
"""
