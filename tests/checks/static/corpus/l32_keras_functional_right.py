# expect: none
# from: https://github.com/keras-team/keras/issues/17548
import tensorflow as tf
from tensorflow.keras import layers


def tower(units, width):
    inputs = layers.Input((width,))
    x = layers.Dense(units, activation="relu")(inputs)
    x = layers.Dropout(0.3)(x)
    return tf.keras.Model(inputs, layers.Dense(1)(x))
