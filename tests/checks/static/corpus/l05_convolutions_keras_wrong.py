# expect: L5
# from: https://github.com/keras-team/keras/issues/473
from tensorflow.keras import Sequential
from tensorflow.keras.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D

model = Sequential()
model.add(Conv2D(32, 3, activation="relu", input_shape=(32, 32, 3)))
model.add(MaxPooling2D())
model.add(Dropout(0.25))
model.add(Conv2D(64, 3))
model.add(BatchNormalization())
model.add(Flatten())
model.add(Dense(10, activation="softmax"))
model.compile("adam", "sparse_categorical_crossentropy")
