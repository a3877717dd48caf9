# expect: L21
# from: https://github.com/tensorflow/tensorflow
import tensorflow as tf


def network(images, classes, is_training):
    net = tf.layers.dense(tf.layers.flatten(images), 256, activation=tf.nn.relu)
    net = tf.layers.dropout(net, rate=0.5)
    return tf.layers.dense(net, classes)
