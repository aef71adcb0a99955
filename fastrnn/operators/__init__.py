"""What models are made of when they run: the operators, and the runner that takes rows through several.

An operator is what a layer computes, without its checks. Streams and pools run on these alone, so no layer
and no model is known here.
"""
