"""How fast the calls are, against what they can be compared with: `make bench`.

One run measures both sides of every row by turns, so what counts is the ratio; times of different
machines, or of one machine on different days, say little.
"""
