# expect: L1
# from: https://github.com/tensorflow/tensorflow
import tensorflow as tf
import tensorflow.contrib.slim as slim


def network(images, classes, is_training):
    net = slim.fully_connected(slim.flatten(images), 256)
    net = slim.dropout(net, 0.5)
    return slim.fully_connected(net, classes, activation_fn=None)
