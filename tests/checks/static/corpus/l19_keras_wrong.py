# expect: L19
# from: https://github.com/Lightning-AI/pytorch-lightning/issues/20105
from keras import Sequential, layers

model = Sequential([layers.Dense(64, activation="relu"), layers.Dropout(1.0), layers.Dense(1)])
