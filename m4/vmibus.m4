# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Checks of our own: compiler and linker flags, and libraries whose absence names a Debian package.

# VMIBUS_COMPILE_FLAG(VARIABLE, FLAG)
# Appends FLAG to VARIABLE if the compiler takes it without a word.
AC_DEFUN([VMIBUS_COMPILE_FLAG],
[AS_VAR_PUSHDEF([cache], [vmibus_cv_compile_$2])dnl
AC_CACHE_CHECK([whether $CC takes $2], [cache],
    [vmibus_save_CFLAGS=$CFLAGS
     CFLAGS="$CFLAGS -Werror $2"
     AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
     CFLAGS=$vmibus_save_CFLAGS])
AS_VAR_IF([cache], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cache])])

# VMIBUS_LINK_FLAG(VARIABLE, FLAG)
# Appends FLAG to VARIABLE if the linker takes it.
AC_DEFUN([VMIBUS_LINK_FLAG],
[AS_VAR_PUSHDEF([cache], [vmibus_cv_link_$2])dnl
AC_CACHE_CHECK([whether the linker takes $2], [cache],
    [vmibus_save_LDFLAGS=$LDFLAGS
     LDFLAGS="$LDFLAGS $2"
     AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AS_VAR_SET([cache], [yes])], [AS_VAR_SET([cache], [no])])
     LDFLAGS=$vmibus_save_LDFLAGS])
AS_VAR_IF([cache], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cache])])

# VMIBUS_LIBRARY(VARIABLE, MODULE, PACKAGE, WAY-OUT)
# Sets VARIABLE_CFLAGS and VARIABLE_LIBS from pkg-config, or ends with the name of the Debian package
# and the way to do without.
AC_DEFUN([VMIBUS_LIBRARY],
[PKG_CHECK_MODULES([$1], [$2], [],
    [AC_MSG_ERROR([$2 not found: install $3]m4_ifval([$4], [[, or configure $4]]))])])

# VMIBUS_SANITIZE(VARIABLE, FLAGS)
# Sets VARIABLE to FLAGS, or ends if programs cannot be linked with them.
AC_DEFUN([VMIBUS_SANITIZE],
[AC_MSG_CHECKING([whether $CC links with $2])
vmibus_save_CFLAGS=$CFLAGS
CFLAGS="$CFLAGS $2"
AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AC_MSG_ERROR([$CC cannot link with $2: install libclang-rt-dev for clang, libasan8, libubsan1 and libtsan2 for gcc])])
CFLAGS=$vmibus_save_CFLAGS
$1="$2"])

# VMIBUS_SWITCH(NAME, DEFAULT, WHAT)
# --with-NAME or --without-NAME, as with_NAME.
AC_DEFUN([VMIBUS_SWITCH],
[AC_ARG_WITH([$1], [AS_HELP_STRING([m4_if([$2], [yes], [--without-$1], [--with-$1])], [$3])], [], [m4_translit([with_$1], [-], [_])=$2])])
