# expect: none
# from: https://github.com/pytorch/pytorch/issues/69801
from tensorflow.keras.layers import LSTM, Dense, Embedding, SpatialDropout1D
from tensorflow.keras.models import Sequential

model = Sequential([Embedding(20000, 128), SpatialDropout1D(0.2), LSTM(64, dropout=0.2), Dense(1, activation="sigmoid")])
model.compile(loss="binary_crossentropy", optimizer="adam")
