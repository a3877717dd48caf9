# expect: L5
# from: https://github.com/keras-team/keras/issues/473
from tensorflow import keras
from tensorflow.keras import layers


def build(n_features, n_classes):
    inputs = keras.Input((n_features,))
    x = layers.Dense(256)(inputs)
    x = layers.PReLU()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    outputs = layers.Dense(n_classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)
