"""Maps between embedding spaces: learn, judge, keep, apply. Knows arrays only."""
