# expect: none
# from: https://github.com/keras-team/keras/issues/17548
import tensorflow as tf
from tensorflow.keras import layers


class Tower(tf.keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units, activation="relu")

    def call(self, x, training=None):
        x = self.dense(x)
        return layers.Dropout(0.3)(x, training=training)
