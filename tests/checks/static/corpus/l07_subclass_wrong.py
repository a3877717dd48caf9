# expect: L7
# from: https://github.com/keras-team/keras/issues/9412
import keras
from keras import layers


class Classifier(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.hidden = layers.Dense(128, activation="relu")
        self.dropout = layers.Dropout(0.5)
        self.out = layers.Dense(classes)

    def call(self, inputs):
        x = self.hidden(inputs)
        x = self.dropout(x, training=True)
        return self.out(x)
