# expect: none
# from: https://github.com/keras-team/keras/blob/master/keras/src/applications/efficientnet_v2.py
from keras import layers


def block(x, filters, survival_probability):
    y = layers.Conv2D(filters, 3, padding="same", activation="silu")(x)
    if survival_probability:
        y = layers.Dropout(survival_probability, noise_shape=(None, 1, 1, 1))(y)
    return layers.add([x, y])


def network(x, blocks, drop_connect_rate=0.2):
    for i in range(blocks):
        x = block(x, 32, survival_probability=drop_connect_rate * i / blocks)
    return x
