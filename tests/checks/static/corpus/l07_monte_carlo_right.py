# expect: none
# from: https://github.com/yaringal/DropoutUncertaintyExps
from tensorflow.keras.layers import Dense, Dropout, Input
from tensorflow.keras.models import Model


def build_mc_dropout_model(n_features, rate=0.05):
    inputs = Input(shape=(n_features,))
    h = Dropout(rate)(inputs, training=True)
    h = Dense(50, activation="relu")(h)
    return Model(inputs, Dense(1)(h))
