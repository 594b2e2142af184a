"""What an errand of the API server is given by its tests: an ear, and no time."""


class Log(list):
    def __call__(self, level, message):
        self.append((level, message))

    def text(self):
        return "\n".join(message for _, message in self)


def no_pause(_seconds):
    return False
