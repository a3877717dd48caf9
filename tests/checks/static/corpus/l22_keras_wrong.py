# expect: L22
# from: https://github.com/NVIDIA-Merlin/models/pull/369
from tensorflow import keras

model = keras.Sequential(
    [
        keras.layers.Dense(300, activation="selu", kernel_initializer="lecun_normal"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
