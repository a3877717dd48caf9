# expect: none
# from: https://github.com/google/uncertainty-baselines
import tensorflow as tf


def noisy_block(features, width, rate, use_mc_dropout):
    features = tf.keras.layers.Dense(width, activation="relu")(features)
    drop = tf.keras.layers.Dropout(rate)
    if use_mc_dropout:
        return drop(features, training=True)
    return drop(features)
