# expect: L7
# from: https://github.com/keras-team/keras/issues/9412
import tensorflow as tf


def block(features, width, rate):
    features = tf.keras.layers.Dense(width, activation="relu")(features)
    drop = tf.keras.layers.Dropout(rate)
    return drop(features, training=True)
