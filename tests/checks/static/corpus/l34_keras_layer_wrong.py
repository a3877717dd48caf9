# expect: L34
# from: https://github.com/zhouhaoyi/Informer2020/blob/main/models/attn.py
from tensorflow import keras


class Gate(keras.layers.Layer):
    def __init__(self, width, rate=0.2):
        super().__init__()
        self.inner = keras.layers.Dense(width)
        self.drop = keras.layers.Dropout(rate)

    def call(self, x):
        return x * keras.activations.sigmoid(self.inner(x))
