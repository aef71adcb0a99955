"""Definitions in plain NumPy, which compiled code is tested against: layers, and ATen's operators.

`layers` defines what users write down; its names are here. `operators` defines the operators of programs.
Only programs need it, so it is not imported here. Nothing in this folder calls compiled code of the package.
"""

from fastrnn.reference.layers import STEPS as STEPS
from fastrnn.reference.layers import activation as activation
from fastrnn.reference.layers import affine as affine
from fastrnn.reference.layers import convolution_reference as convolution_reference
from fastrnn.reference.layers import gru_step as gru_step
from fastrnn.reference.layers import layer_norm_reference as layer_norm_reference
from fastrnn.reference.layers import linear_reference as linear_reference
from fastrnn.reference.layers import log_softmax_reference as log_softmax_reference
from fastrnn.reference.layers import lstm_step as lstm_step
from fastrnn.reference.layers import over_steps as over_steps
from fastrnn.reference.layers import recurrent_reference as recurrent_reference
from fastrnn.reference.layers import relu as relu
from fastrnn.reference.layers import rnn_step as rnn_step
from fastrnn.reference.layers import sequential_reference as sequential_reference
from fastrnn.reference.layers import sigmoid as sigmoid
from fastrnn.reference.layers import softmax_reference as softmax_reference
