"""Maps between embedding spaces: learn, judge, keep, apply. Knows arrays only.

base        the Map protocol, Adapter and its card, the errors
linear      Procrustes ... ridge; coherence: canonical correlation; whitened: between both; lowrank: reduced rank
local       experts held to a global map; residual: nearest pairs; graph: how they are found
mlp         residual network; distill: listwise distillation (both need torch to fit, none to apply)
pairs       validated pairs and how they are read; sides: which one is the new model's
observe     running statistics of real queries
recipe      how a map is made; trial: held-out retrieval; candidates: what is tried; select: fit a whole adapter
grow        the same recipe on more pairs, as a re-encode makes them
calibrate   scores of one space on the other's scale; merge: hits of both spaces in one list
fingerprint what vectors of each model look like
dataset     the evaluation format; metrics, search, evaluate: quality on judged queries; report: tables and plots
store       an adapter as a directory; registry: map kinds by name; place: atomic replacement
"""
