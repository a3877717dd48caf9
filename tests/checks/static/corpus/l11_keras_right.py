# expect: none
# from: https://github.com/tensorflow/tensorflow/issues/38236
import keras
from keras.layers import LSTM, Dense, Embedding

model = keras.Sequential([Embedding(5000, 64), LSTM(32, dropout=0.3, recurrent_dropout=0.2), Dense(1)])
