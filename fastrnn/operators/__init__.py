"""The operators, which compute what layers describe, and the runner that takes rows through them.

An operator computes a layer without its checks. Streams and pools run on operators alone, so nothing here
knows a layer or a model. In the order of reading:

    signature            what an operator, a layer or a model takes, returns and keeps as state
    operator             the contract that every operator has
    stateless            tokens, functions of rows, products, the last step
    recurrent            RNN, GRU and LSTM
    convolution          Conv1d, causal or not
    runner               takes rows through several operators; whole calls
    chain                layers that follow one another: whether they fit, and how they run
"""
