# expect: none
# from: https://github.com/keras-team/keras/issues/9412
import keras
from keras import layers


class Classifier(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.hidden = layers.Dense(128, activation="relu")
        self.dropout = layers.Dropout(0.5)
        self.out = layers.Dense(classes)

    def call(self, inputs, training=None):
        x = self.hidden(inputs)
        x = self.dropout(x, training=training)
        return self.out(x)

    def train_step(self, data):
        x, y = data
        return self.compute_loss(y=y, y_pred=self(x, training=True))
