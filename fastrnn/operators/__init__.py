"""What models are made of when they run: the operators, and the runner that takes rows through them.

An operator is what a layer computes, without its checks. Streams and pools run on these alone, so no layer
and no model is known here. In the order of reading:

    signature            what an operator, a layer or a model takes, gives and keeps
    operator             the contract of operators
    stateless            tokens, functions of rows, projections, the last step
    recurrent            RNN, GRU and LSTM
    runner               rows in, rows out, through several operators; whole calls
    chain                layers that follow one another: whether they fit, and how they run
"""
